"""TLS: what is asked for, what came of it, and one session, of either end. No socket is opened here."""
