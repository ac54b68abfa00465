"""What clients answer when their server asks them: ``services=`` of ``connect()``, of both kinds of clients."""
