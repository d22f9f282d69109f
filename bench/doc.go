// Package bench measures the product against baselines that do as little as can
// be done, in one interleaved run on one machine, so that only ratios are read.
//
// Each path has two pods, network namespaces joined by a veth. In one pair two
// real ztunnels carry the connections. In the others stand, in ztunnel's place
// and under the same rules of the kernel, two hops of plain copying, of raw TLS,
// of raw TLS tuned, and of the tunnel alone; the direct connection has pods
// without any rules. Every hop and every application is a process of its own,
// made of this program.
//
// For L7 a waypoint and its peers (Debian's nginx, and Envoy if it is wanted)
// stand on one core before one backend, and what generates the load is on
// another: compared is what a request costs of the proxy's processor, and what
// clients feel at a pace that all of them keep. The package is the only one that may import every room;
// nothing imports it but bench/cmd.
package bench
