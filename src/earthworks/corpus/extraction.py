"""stub"""

LARGEST_PAGE = 10_000_000


def need_trafilatura(path):
    pass


def extract(page, url=None, charset=None):
    import trafilatura

    return trafilatura.extract(page)
