"""The table of answers with which feedback is joined: one SQLite file for all versions on a machine."""

ANSWERS_FILE = "answers.db"

ANSWERS_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    version TEXT NOT NULL,     -- two versions answer a mirrored request under the same request id
    answered_at_s REAL NOT NULL,
    labels TEXT NOT NULL,      -- JSON array, one per row
    body_crc INTEGER,          -- checksum of the request's body
    is_keyed INTEGER,          -- 1: the checksum is keyed; NULL: plain, from a Bento with an older copy of this file
    truth TEXT,                -- JSON array; NULL until feedback arrives
    counted INTEGER NOT NULL DEFAULT 0,
    is_copy INTEGER,           -- 1: the answer to a copy; no user got it, it is only compared
    labelled_by TEXT,          -- the caller under whose name the label is counted; NULL: unknown
    aging INTEGER,             -- index of the next age at which the label is counted; NULL: none
    UNIQUE (request_id, version)
);
CREATE INDEX IF NOT EXISTS to_count ON answers (version) WHERE truth IS NOT NULL AND counted = 0;
"""
