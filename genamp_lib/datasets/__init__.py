"""Where events come from: closed forms and shipped samples. Not for generating them: simulation."""
