-- Web hooks: where it is told what happens to tasks.
CREATE TABLE hooks (
    id              INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    url             TEXT    NOT NULL,
    -- Signs what is sent.
    secret          BLOB    NOT NULL,
    -- The kinds of events that it is told; JSON. None: all.
    kinds           TEXT    NOT NULL,
    created         BIGINT  NOT NULL,
    created_by      TEXT    NOT NULL,
    -- The last event that it took, or was not to be told.
    told            BIGINT  NOT NULL,
    -- Events that were dropped before it took them.
    missed          BIGINT  NOT NULL DEFAULT 0,
    -- How often it has failed since it took one, when it is tried again, and why it failed.
    failures        BIGINT  NOT NULL DEFAULT 0,
    again           BIGINT  NOT NULL DEFAULT 0,
    error           TEXT    NOT NULL DEFAULT '',
    -- Which server tells it, and until when no other one does.
    server          TEXT,
    until           BIGINT  NOT NULL DEFAULT 0
);

-- What happened to tasks, until each hook knows it.
CREATE TABLE events (
    id              INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at              BIGINT  NOT NULL,
    kind            TEXT    NOT NULL,
    -- JSON.
    data            TEXT    NOT NULL
);
