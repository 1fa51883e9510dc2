-- The number of the volume's last purge that was carried out here.
ALTER TABLE ledger_volumes ADD COLUMN purge bigint NOT NULL DEFAULT 0 CHECK (purge >= 0);
