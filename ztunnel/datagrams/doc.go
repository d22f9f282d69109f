// Package datagrams carries the datagrams that a pod's rules give to the proxy.
// What goes from one address to another is a flow: the first datagram opens it,
// where it leads is chosen once, and it ends when nobody has sent anything for a
// while. What comes back goes to the program from the address that it sent to.
//
// It owns the table of flows, their bounds and their end, counts everything that it
// drops, and knows how a datagram is sent as it is (Direct) and on a stream of a
// tunnel (Tunnelled); it refuses to choose between them and to know who may send to
// whom, which its Carrier does. Nothing is told to a program
// whose datagrams reach nobody: there is no message of ICMP, and the next one is
// carried as well.
package datagrams
