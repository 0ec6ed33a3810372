"""Safety before against after training: suites of probes written for this project, and what to compare them by.

`catalog` names the suites and runs them; `drop.safety` sets two runs side by side. `memorisation` looks at what a model
says of its training rows; `filters` judge single texts, also while serving. What each probe is, how it is graded and
what it cannot tell stands in docs/safety.md.
"""
