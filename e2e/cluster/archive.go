package cluster

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
)

// readMember returns one small file of a tar archive.
func readMember(file, name string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("no %s in it", name)
		}
		if err != nil {
			return nil, err
		}
		if h.Name == name {
			return io.ReadAll(io.LimitReader(r, 1<<20))
		}
	}
}
