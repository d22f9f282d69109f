// Package datagrams carries the datagrams that a pod's rules give to the proxy.
// What goes from one address to another is a flow: the first datagram opens it,
// where it leads is chosen once, and it ends when nobody has sent anything for a
// while. What comes back goes to the program from the address that it sent to.
//
// It owns the table of flows, their bounds and their end, and counts everything
// that it drops; it refuses to know how a flow is carried, which is its Carrier's
// (Direct is the plainest), and who may send to whom. Nothing is told to a program
// whose datagrams reach nobody: there is no message of ICMP, and the next one is
// carried as well.
package datagrams
