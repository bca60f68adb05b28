"""What the tests of several folders share. It is installed for development only."""
