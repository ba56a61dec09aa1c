-- A table that the Python program has made is taken over with its rows: the changes below are
-- nothing to a new table.
CREATE TABLE IF NOT EXISTS users (
    id BIGSERIAL PRIMARY KEY,
    username VARCHAR(50) NOT NULL,
    email VARCHAR(100) NOT NULL,
    password_hash TEXT NOT NULL,
    is_active BOOLEAN,
    created_at TIMESTAMPTZ,
    updated_at TIMESTAMPTZ,
    CONSTRAINT users_username_key UNIQUE (username),
    CONSTRAINT users_email_key UNIQUE (email)
);

-- What is converted here was written with Python's datetime.utcnow().
SET LOCAL TIME ZONE 'UTC';
ALTER TABLE users
    ALTER COLUMN id TYPE BIGINT,
    ALTER COLUMN password_hash TYPE TEXT,
    ALTER COLUMN created_at TYPE TIMESTAMPTZ,
    ALTER COLUMN updated_at TYPE TIMESTAMPTZ;
-- The Python program left it empty, and meant active.
UPDATE users
    SET is_active = COALESCE(is_active, TRUE),
        created_at = COALESCE(created_at, now()),
        updated_at = COALESCE(updated_at, created_at, now())
    WHERE is_active IS NULL OR created_at IS NULL OR updated_at IS NULL;
ALTER TABLE users
    ALTER COLUMN is_active SET DEFAULT TRUE,
    ALTER COLUMN is_active SET NOT NULL,
    ALTER COLUMN created_at SET DEFAULT now(),
    ALTER COLUMN created_at SET NOT NULL,
    ALTER COLUMN updated_at SET DEFAULT now(),
    ALTER COLUMN updated_at SET NOT NULL;

CREATE INDEX users_newest_first ON users (created_at DESC, id DESC);
