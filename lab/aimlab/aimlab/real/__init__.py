"""A cluster of real parts for tests, built from Go modules.

etcd, kube-apiserver, kube-controller-manager, kube-scheduler and KServe are the real ones; aimlab's
node is the kubelet, Traefik the gateway. All processes are in a network of their own that reaches
nothing, and end with the command that asked for them.
"""
