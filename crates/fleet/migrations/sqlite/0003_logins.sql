-- How operators reach the page: links that log in once, and sessions of browsers. Their tokens are not kept.
CREATE TABLE logins (
    -- BLAKE3 of the token.
    hash            BLOB    NOT NULL PRIMARY KEY,
    kind            TEXT    NOT NULL CHECK (kind IN ('link', 'session')),
    -- The operator's key; a login ends with it.
    public_key      TEXT    NOT NULL,
    expires         BIGINT  NOT NULL
);
CREATE INDEX logins_by_key ON logins (public_key, kind);
