"""The wire: generated messages, their conversion to ours, and the transport between members."""

from lattice_core.rpc.environment import prepare_grpc

prepare_grpc()  # before anything imports gRPC, which reads its variables once
