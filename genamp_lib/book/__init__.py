"""Run a chapter, compare it with the paper, build the site. Not for statistics or plots."""
