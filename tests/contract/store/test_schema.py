"""The migrations make the tables that the code speaks of, and the indexes serve the searches they are for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import ClauseElement, Connection, inspect
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.compiler import SQLCompiler

from moorage.adapters.sql import clusters, job_queue, leases, reads, tables
from moorage.adapters.sql.migrate import alembic_config
from moorage.adapters.sql.postgres import make_engine as make_postgres_engine
from moorage.adapters.sql.postgres import prepare
from moorage.adapters.sql.postgres_url import connection_parameters
from moorage.adapters.sql.sqlite import make_engine, prepare_file
from moorage.adapters.sql.tables import metadata
from moorage.testing.postgres import PostgresServer


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    path = tmp_path / "moorage.db"
    prepare_file(path)
    with make_engine(path, writes=True).connect() as connection:
        yield connection


@pytest.fixture
def postgres_connection(postgres: PostgresServer) -> Iterator[Connection]:
    parameters = connection_parameters(postgres.new_database())
    prepare(parameters)
    engine = make_postgres_engine(parameters)
    with engine.connect() as connection:
        yield connection


@pytest.fixture(params=["connection", "postgres_connection"])
def either(request: pytest.FixtureRequest) -> Connection:
    found: Connection = request.getfixturevalue(request.param)
    return found


def test_migrations_and_tables_agree(either: Connection) -> None:
    context = MigrationContext.configure(either, opts={"compare_type": True})
    assert compare_metadata(context, metadata) == []
    assert {"deployments", "deliveries", "events"} <= set(metadata.tables)


def test_the_comparison_would_notice(either: Connection) -> None:
    either.exec_driver_sql("DROP INDEX ix_deployments_due")
    either.exec_driver_sql("ALTER TABLE users DROP COLUMN version")
    context = MigrationContext.configure(either, opts={"compare_type": True})
    assert [change[0] for change in compare_metadata(context, metadata)] == ["add_index", "add_column"]


def test_migrations_can_be_undone_and_done_again(either: Connection) -> None:
    config = alembic_config(either)
    command.downgrade(config, "base")
    assert inspect(either).get_table_names() == ["alembic_version"]
    command.upgrade(config, "head")
    assert compare_metadata(MigrationContext.configure(either), metadata) == []


def test_what_is_searched_in_postgresql_is_compared_byte_by_byte(postgres_connection: Connection) -> None:
    rows = postgres_connection.exec_driver_sql(
        "SELECT table_name, column_name, collation_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND data_type = 'text' AND table_name <> 'alembic_version'"
    ).all()
    assert {row.table_name for row in rows} == set(metadata.tables)
    other = {row.column_name for row in rows if row.collation_name != "C"}
    assert other == {"body"}


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (leases._claim(tables.deployments), "ix_deployments_due"),
        (leases._claim(tables.deliveries), "ix_deliveries_due"),
        (leases._next_due(tables.deployments)[0], "ix_deployments_due"),
        (leases._next_due(tables.deployments)[1], "ix_deployments_held"),
        (leases._next_due(tables.deployments)[2], "ix_deployments_due"),
        (job_queue._CLAIM, "ix_jobs_queue"),
        (job_queue._NEXT[0], "ix_jobs_due"),
        (job_queue._NEXT[1], "ix_jobs_expires_at"),
        (job_queue._NEXT[2], "ix_jobs_held"),
        (job_queue._EXPIRED, "ix_jobs_expires_at"),
        (job_queue._FORGOTTEN, "ix_jobs_forget_at"),
        (job_queue._COUNTS, "COVERING INDEX ix_jobs_deployment_id_state_created_at_size_retries"),
        (job_queue._BACKLOG, "COVERING INDEX ix_jobs_deployment_id_state_created_at_size_retries"),
        (job_queue._QUEUED, "ix_jobs_deployment_id_state_created_at_size_retries"),
        (reads._SERVING, "ix_deployments_serving"),
        (reads._DEPLOYMENT_NAMED, "uq_deployments_held_name"),
        (reads._EVENTS, "sqlite_autoindex_events_1"),
        (clusters._CLUSTERS, "uq_clusters_held_name"),
        (clusters._NODE_GROUPS, "ix_node_groups_organization_id_cluster_id"),
        (clusters._NODE_GROUPS_OF_CLUSTER, "ix_node_groups_organization_id_cluster_id"),
        (reads._API_KEYS, "ix_api_keys_organization_id_created_at_id"),
    ],
)
def test_hot_searches_use_their_index(connection: Connection, statement: ClauseElement, index: str) -> None:
    compiled = statement.compile(dialect=sqlite.dialect())
    assert isinstance(compiled, SQLCompiler)
    parameters = tuple(compiled.params[name] for name in compiled.positiontup or ())
    plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", parameters).all()
    assert any(index in row[3] for row in plan), plan
