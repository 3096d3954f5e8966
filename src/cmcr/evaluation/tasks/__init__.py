"""The paper's zero-shot tasks, one file each, by the names of the command line.

A task's `prepare` embeds the items of a record once, in their own spaces; `score` then measures any method of comparing
them: the connection, a baseline, another connection.
"""
