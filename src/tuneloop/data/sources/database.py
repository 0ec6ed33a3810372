"""What a query finds in a database: `sqlite:///shop.db#SELECT text, label FROM reviews`, or any SQLAlchemy address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuneloop.data.files import opened
from tuneloop.data.read import Row, without_secrets
from tuneloop.data.sources import base
from tuneloop.data.sources._plain import plain
from tuneloop.errors import UserError, missing_extra

_NOT_CODE = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)      # texts, names, comments
QUERY = re.compile(r"(?:\s|/\*.*?\*/|--[^\n]*\n)*(SELECT|WITH)\b", re.IGNORECASE | re.DOTALL)
ROWS_AT_ONCE = 1000
EXAMPLE = "sqlite:///shop.db#SELECT text, label FROM reviews"
DRIVERS = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""Modules whose packages are called otherwise."""


class Source(base.Source):
    """The rows of one query, streamed. What is called a line is the number of a row in the result.

    Nothing is changed in the database: only a SELECT is let through, and the transaction is rolled back; SQLite and
    PostgreSQL are told to refuse changes too.
    """

    schemes = ("sqlite:", "postgresql:", "postgresql+", "mysql:", "mysql+", "mariadb:", "mariadb+", "oracle:",
               "oracle+", "mssql:", "mssql+", "duckdb:")
    kind = "a database query"

    @classmethod
    def owns(cls, name: str) -> bool:
        address, _, query = name.partition("#")
        return name.startswith(cls.schemes) or ("://" in address and QUERY.match(query) is not None)

    def __init__(self, name: str, root: Path, shown: str) -> None:
        super().__init__(name, root, shown)
        address, _, self.query = name.partition("#")
        if not QUERY.match(self.query) or ";" in _NOT_CODE.sub("", self.query).rstrip("; \n"):
            raise UserError(f"{self.shown}: only a single query that begins with SELECT or WITH is run.",
                            wanted=f"which rows, behind a #: {EXAMPLE}")
        with self._in_words():
            from sqlalchemy import make_url

            self.url = make_url(address)
        if self.url.get_backend_name() == "sqlite" and self.url.database and not self.url.query:
            file = root / self.url.database
            with opened(file, self.shown):
                self.url = self.url.set(database=str(file))

    def rows(self) -> Iterator[Row]:
        return base.some(self._rows(), self.shown)

    def _rows(self) -> Iterator[Row]:
        with self._in_words():
            from sqlalchemy import NullPool, create_engine

            engine = create_engine(self.url, poolclass=NullPool)
            with engine.connect() as connection:
                options = {"stream_results": True, "yield_per": ROWS_AT_ONCE, "no_parameters": True}
                if engine.dialect.name == "postgresql":
                    options["postgresql_readonly"] = True
                if engine.dialect.name == "sqlite":
                    connection.exec_driver_sql("PRAGMA query_only = ON")
                found = connection.execution_options(**options).exec_driver_sql(self.query)
                columns = self._columns(list(found.keys()))
                for number, values in enumerate(found, 1):
                    yield Row(number, dict(zip(columns, map(plain, values), strict=True)))

    def _columns(self, names: list[str]) -> list[str]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"{self.shown}: two columns of the result are called {', '.join(twice)}.",
                            wanted="different names", fix="rename one: SELECT a.text, b.text AS answer FROM …")
        return names

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """What goes wrong in a database or its driver, without the password."""
        try:
            yield
        except UserError:
            raise
        except ModuleNotFoundError as error:
            if error.name == "sqlalchemy":
                raise missing_extra("sqlalchemy", "data", "Reading databases") from None
            raise UserError(f"{self.shown}: this database needs the package of {error.name}, which is not installed.",
                            fix=f"pip install {DRIVERS.get(error.name or '', error.name)}") from None
        except Exception as error:      # every driver has errors of its own
            reason = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
            password = str(self.url.password) if hasattr(self, "url") and self.url.password else ""
            reason = without_secrets(reason.replace(password, "***") if password else reason)
            raise UserError(f"{self.shown}: the database says: {reason.rstrip('.')}.",
                            fix="look at the address and the query") from None
