-- Times are seconds since 1970. Booleans are 0 or 1. Text that is JSON is said to be.

CREATE TABLE devices (
    -- The controllerId of the device interface.
    id              TEXT    NOT NULL PRIMARY KEY,
    state           TEXT    NOT NULL CHECK (state IN ('pending', 'accepted', 'refused')),
    -- BLAKE3 of the target token.
    token           BLOB,
    -- The device's own key, as it was enrolled.
    public_key      TEXT,
    -- JSON, text to text.
    attributes      TEXT    NOT NULL DEFAULT '{}',
    -- Whether the device is to send its attributes.
    wants_attributes BIGINT NOT NULL DEFAULT 1,
    -- JSON; null while the device does not confirm by itself.
    auto_confirm    TEXT,
    -- The version of the last signed list, and a hash of what it listed.
    list_version    BIGINT  NOT NULL DEFAULT 0,
    list_tasks      BLOB,
    -- The action that succeeded last.
    installed       BIGINT,
    created         BIGINT  NOT NULL,
    last_seen       BIGINT,
    last_address    TEXT
);

CREATE INDEX devices_by_token ON devices (token);
CREATE INDEX devices_by_state ON devices (state);

CREATE TABLE tags (
    device          TEXT    NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    tag             TEXT    NOT NULL,
    PRIMARY KEY (device, tag)
);

CREATE TABLE objects (
    -- BLAKE3, in hexadecimal.
    hash            TEXT    NOT NULL PRIMARY KEY,
    size            BIGINT  NOT NULL,
    sha256          TEXT    NOT NULL,
    sha1            TEXT    NOT NULL,
    md5             TEXT    NOT NULL,
    created         BIGINT  NOT NULL
);

CREATE TABLE tasks (
    -- Also the number of the software module.
    id              INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 2147483647),
    name            TEXT    NOT NULL,
    serial          BIGINT  NOT NULL,
    -- The signed envelope, as JSON, and the BLAKE3 of its payload.
    envelope        BLOB    NOT NULL,
    hash            BLOB    NOT NULL,
    version         TEXT    NOT NULL,
    expires         BIGINT  NOT NULL,
    -- What the server alone decides; JSON.
    terms           TEXT    NOT NULL,
    weight          BIGINT  NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('running', 'paused', 'cancelled')),
    created         BIGINT  NOT NULL,
    created_by      TEXT    NOT NULL,
    UNIQUE (name, serial)
);

CREATE TABLE task_objects (
    task            BIGINT  NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    position        BIGINT  NOT NULL,
    filename        TEXT    NOT NULL,
    object          TEXT    NOT NULL REFERENCES objects (hash),
    PRIMARY KEY (task, position),
    UNIQUE (task, filename)
);
CREATE INDEX task_objects_by_object ON task_objects (object);

-- An attempt of one device at one task. The identifiers are those of the device interface, and never used again.
CREATE TABLE actions (
    id              INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 2147483647),
    task            BIGINT  NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    device          TEXT    NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    attempt         BIGINT  NOT NULL,
    -- Whether it is the newest attempt.
    newest          BIGINT  NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN
        ('waiting', 'confirming', 'running', 'cancelling', 'finished', 'failed', 'cancelled', 'unneeded')),
    -- When the device was first told its terms. They do not change from then on.
    begun           BIGINT,
    -- When the device said that it has the bytes.
    downloaded      BIGINT,
    created         BIGINT  NOT NULL,
    updated         BIGINT  NOT NULL,
    -- What was said last, for people.
    message         TEXT    NOT NULL DEFAULT '',
    -- The device's code of the last feedback.
    code            BIGINT,
    -- Progress of the last feedback.
    done            BIGINT,
    of              BIGINT,
    UNIQUE (task, device, attempt)
);
CREATE INDEX actions_open ON actions (device)
    WHERE state IN ('waiting', 'confirming', 'running', 'cancelling');
CREATE INDEX actions_by_task ON actions (task, state);
CREATE INDEX actions_by_device ON actions (device);

CREATE TABLE messages (
    id              INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    action          BIGINT  NOT NULL REFERENCES actions (id) ON DELETE CASCADE,
    at              BIGINT  NOT NULL,
    text            TEXT    NOT NULL
);
CREATE INDEX messages_by_action ON messages (action, id);

CREATE TABLE enrolments (
    id              INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    -- What the token does: it enrols a device of ours, or is a gateway's.
    kind            TEXT    NOT NULL CHECK (kind IN ('line', 'gateway')),
    label           TEXT    NOT NULL,
    -- BLAKE3 of the token.
    token           BLOB    NOT NULL UNIQUE,
    -- Devices that it may still enrol; null: any number.
    uses_left       BIGINT,
    expires         BIGINT  NOT NULL,
    revoked         BIGINT  NOT NULL DEFAULT 0,
    -- Tags of the devices that it enrols; JSON.
    tags            TEXT    NOT NULL DEFAULT '[]',
    -- Whether the devices that it enrols are accepted at once.
    accepts         BIGINT  NOT NULL,
    created         BIGINT  NOT NULL,
    created_by      TEXT    NOT NULL
);

-- Which device used which line, so that one that did not get the answer can ask again.
CREATE TABLE enrolled (
    enrolment       BIGINT  NOT NULL REFERENCES enrolments (id) ON DELETE CASCADE,
    device          TEXT    NOT NULL,
    public_key      TEXT    NOT NULL,
    at              BIGINT  NOT NULL,
    PRIMARY KEY (enrolment, device)
);

CREATE TABLE operators (
    name            TEXT    NOT NULL PRIMARY KEY,
    public_key      TEXT    NOT NULL UNIQUE,
    role            TEXT    NOT NULL CHECK (role IN ('read', 'operate', 'admin')),
    created         BIGINT  NOT NULL
);

CREATE TABLE roots (
    version         BIGINT  NOT NULL PRIMARY KEY,
    envelope        BLOB    NOT NULL
);

CREATE TABLE audit (
    id              INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at              BIGINT  NOT NULL,
    -- An operator's name, or 'device NAME', or 'server'.
    who             TEXT    NOT NULL,
    address         TEXT    NOT NULL,
    what            TEXT    NOT NULL,
    subject         TEXT    NOT NULL
);
