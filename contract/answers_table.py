"""The table of answers that feedback is joined to: one SQLite file for all versions on a machine."""

ANSWERS_FILE = "answers.db"

ANSWERS_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    id INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL,
    version TEXT NOT NULL,     -- mirrored requests are answered by two versions under one request id
    answered_at_s REAL NOT NULL,
    labels TEXT NOT NULL,      -- JSON array, one per row
    body_crc INTEGER,          -- checksum of the request's body
    is_keyed INTEGER,          -- 1: of the version's own key; NULL: plain, by a Bento with an older copy of this file
    truth TEXT,                -- JSON array; NULL until feedback arrives
    counted INTEGER NOT NULL DEFAULT 0,
    is_copy INTEGER,           -- 1: no user got it; the answer to a copy, which is only compared
    labelled_by TEXT,          -- under which caller's name its label counts; NULL: not known
    aging INTEGER,             -- the next age at which the label counts, as an index; NULL: none
    UNIQUE (request_id, version)
);
CREATE INDEX IF NOT EXISTS to_count ON answers (version) WHERE truth IS NOT NULL AND counted = 0;
"""
