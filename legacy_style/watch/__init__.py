"""Pages in a browser: a run to watch while it paints, and the studio, which starts runs from a page.

`server` answers browsers on this machine and nobody else; `watcher` is what a run tells a page, and what a page asks of
a run; `page` puts the two together, and `studio` adds uploads and a queue. What comes in are pictures and losses of any
program. This room imports programs/ and what lies below it, and prints nothing.
"""
