// Package inbound carries what arrives for a pod: CONNECTs in tunnels on port
// 15008 and captured plaintext on 15006 (dataplane spec 1.5, 2.5).
//
// It owns the effects: asking ztunnel/route, dialling the application from the
// client's own address, answering, relaying, and cutting what a later policy
// denies. A 200 is sent only after the application has accepted. A pod whose
// record has not come gets no connection. It refuses to decide.
// ztunnel/podproxy calls it, once a pod.
package inbound
