"""Short scripts that use the library from Python; the tests run each."""
