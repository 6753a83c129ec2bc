"""The wire: generated messages, their conversion to ours, and the transport between members."""

import os

# gRPC's C core writes lines of its own to stderr ("Got goaway ..."), and reads this once, when it is first
# imported. What matters of it comes back to us as an error; whoever wants the rest sets the variable.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
