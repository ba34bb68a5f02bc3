__version__ = "0.6+lite.2"
