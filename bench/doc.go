// Package bench measures the product against baselines that do as little as can
// be done, in one interleaved run on one machine, so that only ratios are read.
//
// Two pods are two network namespaces joined by a veth. They are enrolled: two
// real ztunnels carry their connections, and beside them, under the same rules of
// the kernel, run two hops of plain copying and two of raw TLS. A second pair of
// pods without any rules is for the direct connection. Every hop and every application is a
// process of its own, made of this program. The package is the only one that may
// import every room; nothing imports it but bench/cmd.
package bench
