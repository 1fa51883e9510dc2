-- The ledger's own id, by which a volume knows the ledger that it has joined from any other.
CREATE TABLE ledger (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id uuid NOT NULL
);

-- The volumes that have joined, and the store that may write for each: the one that connected last.
CREATE TABLE ledger_volumes (
    volume uuid PRIMARY KEY,
    holder uuid NOT NULL,
    joined_at timestamptz NOT NULL DEFAULT now()
);

-- Which accepted payment has the right to an id: that of this journal at this place, which is
-- segment * 2^32 + index. A row never changes its volume; it passes to another record of it where a
-- power cut took the one that had it.
CREATE TABLE ledger_claims (
    correlation_id uuid PRIMARY KEY,
    volume uuid NOT NULL,
    instance integer NOT NULL,
    place bigint NOT NULL
);

-- How far each journal is in the tables below: everything before this place.
CREATE TABLE ledger_places (
    volume uuid NOT NULL REFERENCES ledger_volumes,
    instance integer NOT NULL CHECK (instance BETWEEN 1 AND 65535),
    place bigint NOT NULL CHECK (place > 0),
    PRIMARY KEY (volume, instance)
);

-- What was settled. Partitioned by the month of requested_at (UTC); the store makes the partitions.
CREATE TABLE ledger_payments (
    correlation_id uuid NOT NULL,
    amount numeric(10, 2) NOT NULL CHECK (amount > 0),
    processor text NOT NULL CHECK (processor IN ('default', 'fallback')),
    requested_at timestamptz NOT NULL,
    accepted_at timestamptz,
    settled_at timestamptz NOT NULL,
    PRIMARY KEY (correlation_id, requested_at)
) PARTITION BY RANGE (requested_at);

-- What was settled in each millisecond (level 0), second (1) and hour (2) that begins at `start`, in
-- milliseconds since 1970. Each volume has rows of its own, so that no two machines want the same one.
CREATE TABLE ledger_totals (
    level smallint NOT NULL CHECK (level BETWEEN 0 AND 2),
    start bigint NOT NULL,
    volume uuid NOT NULL REFERENCES ledger_volumes,
    processor text NOT NULL CHECK (processor IN ('default', 'fallback')),
    payments bigint NOT NULL CHECK (payments > 0),
    cents bigint NOT NULL CHECK (cents > 0),
    PRIMARY KEY (level, start, volume, processor)
);
