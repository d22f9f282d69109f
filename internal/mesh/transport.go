package mesh

// Transport is over what a workload's tunnels are made.
type Transport uint8

// The transports, numbered as on the wire: with auto, which a workload has that
// says nothing, it accepts HTTP/2 alone, and its own tunnels are made over what
// their destinations accept; with h2, all are over HTTP/2; with h3, it accepts
// HTTP/3 too, and its own tunnels are as with auto.
const (
	TransportAuto Transport = iota
	TransportH2
	TransportH3
)

// transports are their names in the user's API.
var transports = [...]string{"auto", "h2", "h3"}

// String is the name in the user's API.
func (t Transport) String() string {
	if int(t) < len(transports) {
		return transports[t]
	}
	return transports[TransportAuto]
}

// ParseTransport reads a name; ok is whether it is one.
func ParseTransport(name string) (t Transport, ok bool) {
	for i, n := range transports {
		if n == name {
			return Transport(i), true
		}
	}
	return TransportAuto, false
}

// OverH3 reports whether tunnels of a client to a destination are tried over
// HTTP/3.
func (t Transport) OverH3(destination Transport) bool {
	return t != TransportH2 && destination == TransportH3
}
