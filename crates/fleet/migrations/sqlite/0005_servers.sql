-- Which server sends the session; null: none, and any may take it up.
ALTER TABLE sessions ADD COLUMN server TEXT;
-- It counts up while that server lives.
ALTER TABLE sessions ADD COLUMN beat BIGINT NOT NULL DEFAULT 0;
-- Where it is sent to; null until it is known.
ALTER TABLE sessions ADD COLUMN destination TEXT;
-- When it begins at the latest.
ALTER TABLE sessions ADD COLUMN begins BIGINT NOT NULL DEFAULT 0;
-- Whether an operator wants it to begin with the devices that are there.
ALTER TABLE sessions ADD COLUMN begin_now BIGINT NOT NULL DEFAULT 0;

-- Requests of operators that changed something, so that none is taken twice.
CREATE TABLE requests (
    -- BLAKE3 of the request.
    hash            BLOB    NOT NULL PRIMARY KEY,
    -- When it may be forgotten: it is too old to be taken then.
    until           BIGINT  NOT NULL
);
