"""What all tests share: the marker of those that take minutes; -m "not slow" leaves them out."""


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes; leave it out with -m 'not slow'")
