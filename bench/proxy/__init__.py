"""What a proxy costs a call: Guard in its configurations beside nginx, Envoy, Envoy with an external processor, grpcio.

programs    the peers' binaries, and a load generator that is none of Python's
upstream    answers from files: an upstream that is never the bottleneck
shapes      the payloads, and a profile for each
peers       each proxy as a child process
load        calls, and the processor time that a process took for them
rounds      everything takes its turn, again and again
table       ratios and the page
"""
