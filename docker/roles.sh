#!/bin/sh
# Gives the roles their rights on what there is now, and their passwords.
set -eu
psql -v ON_ERROR_STOP=1 --single-transaction --file /docker/roles.sql
psql -v ON_ERROR_STOP=1 --quiet <<'SQL'
\getenv writer WRITER_PASSWORD
\getenv reader READER_PASSWORD
ALTER ROLE valuedrift_writer PASSWORD :'writer';
ALTER ROLE valuedrift_reader PASSWORD :'reader';
SQL
