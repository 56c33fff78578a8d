-- The last group of devices that has the task; null: it is not given out in groups.
ALTER TABLE tasks ADD COLUMN open_group BIGINT;
-- Why the server paused the task; null: it did not.
ALTER TABLE tasks ADD COLUMN held TEXT;
-- The signed task that undoes this one, as JSON, if there is one.
ALTER TABLE tasks ADD COLUMN rollback BLOB;

-- The devices of a task that is given out in groups.
CREATE TABLE grouped (
    task            BIGINT  NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    device          TEXT    NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    -- Which group: 0 is the first one.
    position        BIGINT  NOT NULL,
    -- Whether its failure counts: not if somebody let the task go on in spite of it.
    counts          BIGINT  NOT NULL DEFAULT 1,
    PRIMARY KEY (task, device)
);
CREATE INDEX grouped_by_group ON grouped (task, position);
