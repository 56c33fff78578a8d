-- A multicast session that the server called for an object of a task.
CREATE TABLE sessions (
    id              INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    task            BIGINT  NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    -- Which object of the task.
    position        BIGINT  NOT NULL,
    called          BIGINT  NOT NULL,
    -- Devices that it was called for.
    expected        BIGINT  NOT NULL,
    -- How often it began: once, and once more for each server that ended in the middle.
    runs            BIGINT  NOT NULL,
    -- Its keys are derived from this; null once it is over.
    secret          BLOB,
    -- Null until it is over.
    ended           BIGINT,
    -- What came of it; JSON.
    figures         TEXT    NOT NULL DEFAULT ''
);
CREATE INDEX sessions_by_task ON sessions (task, position);
CREATE INDEX sessions_open ON sessions (id) WHERE ended IS NULL;

-- The object of its task that the device waits for, if it can get it by multicast; null: it loads by itself, or has all.
ALTER TABLE actions ADD COLUMN position BIGINT;
-- What it said it lacks of that object: ranges of bytes; JSON.
ALTER TABLE actions ADD COLUMN lacks TEXT;
-- When it said so.
ALTER TABLE actions ADD COLUMN said BIGINT;
