"""Run a chapter, compare it with the paper, build the site. Not for statistics or plots."""

import sys

# The check of notebooks compiles a grammar of web addresses, which takes a second, if it finds this
# package; no notebook needs it.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
