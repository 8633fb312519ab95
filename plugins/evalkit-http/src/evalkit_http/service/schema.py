"""The tables of the store; triggers see that a job ends once, and write down every move."""

from __future__ import annotations

NEED = "CAST(CASE WHEN json_valid(work) THEN json_extract(work, '$.slots') END AS TEXT)"
"""What a job needs of the slots, as the index `by_need` has it."""
ADDED = ("crashes", "answered")
"""Columns of numbers that files of earlier versions lack."""
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'queued',
    priority INTEGER NOT NULL,
    request TEXT NOT NULL,
    work TEXT NOT NULL,
    created REAL NOT NULL,
    started REAL,
    completed REAL,
    not_before REAL NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    devices TEXT NOT NULL DEFAULT '[]',
    reason TEXT,
    cancelled INTEGER NOT NULL DEFAULT 0,
    result TEXT,
    error TEXT,
    key TEXT UNIQUE,
    webhook_due REAL,
    webhook_tries INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    answered INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS by_turn ON jobs (status, priority DESC, number);
CREATE INDEX IF NOT EXISTS by_need ON jobs ({NEED}, priority DESC, number) WHERE status = 'queued';
CREATE INDEX IF NOT EXISTS by_end ON jobs (completed) WHERE completed IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_webhook ON jobs (webhook_due) WHERE webhook_due IS NOT NULL;
CREATE TABLE IF NOT EXISTS moves (
    number INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, status TEXT NOT NULL, time REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_job ON moves (job);
CREATE TABLE IF NOT EXISTS tally (status TEXT PRIMARY KEY, jobs INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS ended (status TEXT PRIMARY KEY, jobs INTEGER NOT NULL);
CREATE TRIGGER IF NOT EXISTS accepted AFTER INSERT ON jobs BEGIN
    INSERT INTO moves (job, status, time) VALUES (NEW.id, NEW.status, (julianday('now') - 2440587.5) * 86400.0);
    INSERT INTO tally VALUES (NEW.status, 1) ON CONFLICT (status) DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER IF NOT EXISTS forgotten AFTER DELETE ON jobs BEGIN
    UPDATE tally SET jobs = jobs - 1 WHERE status = OLD.status;
END;
CREATE TRIGGER IF NOT EXISTS once BEFORE UPDATE OF status ON jobs
WHEN OLD.status IN ('completed', 'failed', 'cancelled') BEGIN
    SELECT RAISE(ABORT, 'a job ends once');
END;
CREATE TRIGGER IF NOT EXISTS moved AFTER UPDATE OF status ON jobs WHEN OLD.status != NEW.status BEGIN
    INSERT INTO moves (job, status, time) VALUES (NEW.id, NEW.status, (julianday('now') - 2440587.5) * 86400.0);
    INSERT INTO tally VALUES (NEW.status, 1) ON CONFLICT (status) DO UPDATE SET jobs = jobs + 1;
    UPDATE tally SET jobs = jobs - 1 WHERE status = OLD.status;
    INSERT INTO ended SELECT NEW.status, 1 WHERE NEW.status IN ('completed', 'failed', 'cancelled')
        ON CONFLICT (status) DO UPDATE SET jobs = jobs + 1;
END;
"""
