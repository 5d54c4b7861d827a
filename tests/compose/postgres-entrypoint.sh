#!/bin/sh
# What the entrypoint of the postgres image documents, as far as docker-compose.yml relies on it: an empty PGDATA is
# initialised with the superuser's password, the database made, and the files of /docker-entrypoint-initdb.d are run.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust --auth-host=scram-sha-256
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  pg_ctl --wait --options="-c listen_addresses=''" start
  psql --username=postgres --command="CREATE DATABASE \"$POSTGRES_DB\""
  for file in /docker-entrypoint-initdb.d/*.sql; do
    psql --username=postgres --dbname="$POSTGRES_DB" --set=ON_ERROR_STOP=1 --file="$file"
  done
  pg_ctl --wait --mode=fast stop
fi
exec postgres -c listen_addresses='*' "$@"
