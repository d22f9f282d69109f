// Package dns is the DNS proxy of one pod: port 15053 on the pod's loopback, to
// which its rules redirect what its programs ask (dataplane spec 2.7).
//
// It owns the sockets, the form of messages, and asking further: A and AAAA of a
// name that the mesh knows are answered from the mesh's state, by ztunnel/names,
// and everything else goes on to the resolvers of the node proxy byte for byte,
// whatever it is: other types, other opcodes, options, zone transfers. It
// refuses to remember answers for programs, and to harm anything else: a pod in
// which it cannot listen is told of, and tried again.
//
// Lookup is the node proxy's own question, for endpoints that are known by name
// only. ztunnel/podproxy starts one Server a pod; messages are read and written
// with golang.org/x/net/dns/dnsmessage, which does just that and is a
// dependency already.
package dns
