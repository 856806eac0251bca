"""What happens to a session, without HTTP and without any concrete store; private."""
