"""Run inside the gateway's image by its build: everything that a setting can turn on is there, and no TensorFlow."""

import ast
import importlib
import importlib.util
import os
import pkgutil
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

APP: Final = Path("/app")
FOREIGN: Final = ("tensorflow", "tensorflow_serving", "keras", "training", "serving.embedded", "pip", "setuptools", "pytest")
AT_START: Final = ("gateway.wsgi", "gunicorn.app.wsgiapp", "gunicorn.arbiter", "gunicorn.workers.gthread")
RUN_BY_ALEMBIC: Final = "gateway.migrations."
"""Its modules run when they are imported, and only Alembic can."""


def conditional_imports(module: Path) -> Iterator[str]:
    """Names of the modules that a module imports anywhere, so also where a setting decides."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def main() -> None:
    """Import it all, or, with `--compile-into ROOT`, compile into that root what a gateway with default settings loads."""
    sys.path.insert(0, str(APP))
    # The image listens to everybody, and so would refuse to start without a way to tell who asks.
    os.environ |= {"GATEWAY_BIND": "127.0.0.1:0", "GATEWAY_GOLDEN_PERIOD_S": "0"}
    if sys.argv[1:2] == ["--compile-into"]:
        for name in AT_START:
            importlib.import_module(name)
        compile_loaded(Path(sys.argv[2]))
        return
    import_everything()
    present = [name for name in FOREIGN if _is_there(name)]
    if present:
        sys.exit(f"the image must not have {', '.join(present)}")


def import_everything() -> None:
    """Every module of the gateway, and every one that wsgi.py names."""
    gateway = importlib.import_module("gateway")
    names = {module.name for module in pkgutil.walk_packages(gateway.__path__, "gateway.") if not module.ispkg}
    names |= set(conditional_imports(APP / "gateway" / "wsgi.py"))
    # Known to SQLAlchemy, Alembic and gunicorn by their names alone.
    names |= {*AT_START, "alembic.command", "psycopg", "sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.sqlite"}
    for name in sorted(names):
        if not name.startswith(RUN_BY_ALEMBIC) and not name.endswith((".__main__", "gunicorn.conf")):
            importlib.import_module(name)


def compile_loaded(root: Path) -> None:
    """By its contents and not by its time, so that one source gives one image."""
    for module in list(sys.modules.values()):
        source = Path(getattr(module, "__file__", None) or "/")
        target = root / source.relative_to("/")
        if source.suffix == ".py" and target.exists():
            compiled = importlib.util.cache_from_source(str(target))
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(str(source), compiled, dfile=str(source), doraise=True, invalidation_mode=mode)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    main()
