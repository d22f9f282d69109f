package waypoint

// spare is memory that is never touched, and so never there. The collector
// takes it for part of the heap and comes when as much garbage has gathered:
// without it a small heap is searched dozens of times a second, for a fifth of
// what a request costs. On a large heap it changes little.
var spare []byte

// spareLen is what the garbage of a small heap may weigh.
const spareLen = 16 << 20

// SpareCollections makes the garbage collector of this process come less often.
// It is for a main program's beginning.
func SpareCollections() {
	if spare == nil {
		spare = make([]byte, spareLen)
	}
}
