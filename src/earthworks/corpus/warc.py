def read_warc(raw, path, name, reading):
    yield from ()
