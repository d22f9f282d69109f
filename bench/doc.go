// Package bench measures the product against baselines that do as little as can
// be done, in one interleaved run on one machine, so that only ratios are read.
//
// Two pods are two pairs of network namespaces joined by a veth each: in one
// pair the pods are enrolled and two real ztunnels carry their connections, in
// the other the same applications reach each other directly, over two plain
// hops and over two hops of raw TLS. Every hop and every application is a
// process of its own, made of this program. The package is the only one that may
// import every room; nothing imports it but bench/cmd.
package bench
