-- What was settled. Partitioned by the month of requested_at (UTC); the store makes the partitions.
CREATE TABLE payments (
    correlation_id uuid NOT NULL,
    amount numeric(10, 2) NOT NULL CHECK (amount > 0),
    processor text NOT NULL CHECK (processor IN ('default', 'fallback')),
    requested_at timestamptz NOT NULL,
    -- Null where the archive does not know it; docs/scale.md says when.
    accepted_at timestamptz,
    settled_at timestamptz NOT NULL,
    PRIMARY KEY (correlation_id, requested_at)
) PARTITION BY RANGE (requested_at);

-- Whose archive this is. One row: a database has the archive of one volume.
CREATE TABLE archive (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    volume uuid NOT NULL,
    -- The number of the volume's last purge that was carried out here.
    purge bigint NOT NULL CHECK (purge >= 0)
);

-- How far each journal of the volume is archived: everything before this place, which is
-- segment * 2^32 + index.
CREATE TABLE archive_places (
    instance integer PRIMARY KEY CHECK (instance BETWEEN 1 AND 65535),
    place bigint NOT NULL CHECK (place > 0)
);
