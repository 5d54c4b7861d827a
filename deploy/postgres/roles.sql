-- A role for each service that has a store. `sla migrate` works as sla_owner, and grants each what it needs. Run once, as
-- superuser, in the empty database. Passwords are not in here.
CREATE ROLE sla_owner LOGIN;
CREATE ROLE sla_intake LOGIN;
CREATE ROLE sla_clock LOGIN;
CREATE ROLE sla_announcer LOGIN;
CREATE ROLE sla_metrics LOGIN;
CREATE ROLE sla_reader LOGIN;

ALTER DATABASE sla OWNER TO sla_owner;
ALTER SCHEMA public OWNER TO sla_owner;
REVOKE CONNECT, TEMPORARY ON DATABASE sla FROM PUBLIC;
GRANT CONNECT ON DATABASE sla TO sla_intake, sla_clock, sla_announcer, sla_metrics, sla_reader;
