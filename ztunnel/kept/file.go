package kept

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// magic begins every file; its number grows with the form.
const magic = "ambit-kept 1 "

// header says what a file holds, and of which mesh it is.
type header struct {
	Cluster     string    `json:"cluster"`
	TrustDomain string    `json:"trustDomain"`
	Node        string    `json:"node"`
	Written     time.Time `json:"written"`
	// Generation is the control plane's, of the state.
	Generation uint64 `json:"generation,omitempty"`
}

// sum is a file's checksum, its last bytes.
type sum [sha256.Size]byte

// write replaces the file of that name: the bytes are all there before its name
// leads to them, so that who reads finds the old file or the new one.
func write(dir, name string, h header, body func(io.Writer) error) (s sum, size int64, err error) {
	f, err := os.CreateTemp(dir, name+temporary) // 0600
	if err != nil {
		return s, 0, fmt.Errorf("keeping %s: %w", name, err)
	}
	defer os.Remove(f.Name()) // gone already if all went well
	s, size, err = compose(f, name, h, body)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return s, 0, fmt.Errorf("keeping %s: %w", name, err)
	}
	return s, size, syncDir(dir)
}

// temporary is in the names of files that are being written.
const temporary = ".part-*"

func compose(f io.Writer, name string, h header, body func(io.Writer) error) (s sum, size int64, err error) {
	about, err := json.Marshal(h)
	if err != nil {
		return s, 0, err
	}
	hash, count := sha256.New(), &counter{w: f}
	out := bufio.NewWriterSize(io.MultiWriter(count, hash), 64<<10)
	fmt.Fprintf(out, "%s%s\n%s\n", magic, name, about)
	if err = body(out); err == nil {
		err = out.Flush()
	}
	if err == nil {
		hash.Sum(s[:0])
		_, err = count.Write(s[:])
	}
	return s, count.n, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// read gives what write wrote, and nothing of a file that is not whole.
func read(dir, name string, limit int64) (h header, body []byte, s sum, err error) {
	path := filepath.Join(dir, name)
	about, err := os.Lstat(path)
	if err != nil {
		return h, nil, s, err
	}
	if err := private(about, 0o600); err != nil {
		return h, nil, s, err
	}
	if about.Size() > limit {
		return h, nil, s, fmt.Errorf("its %d bytes are more than %d", about.Size(), limit)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return h, nil, s, err
	}
	return parse(text, name)
}

// parse takes a file apart.
func parse(text []byte, name string) (h header, body []byte, s sum, err error) {
	first := magic + name + "\n"
	if len(text) < len(first)+len(s) || !bytes.HasPrefix(text, []byte(first)) {
		return h, nil, s, errors.New("it is not of a form that is known here")
	}
	end := len(text) - len(s)
	copy(s[:], text[end:])
	if sha256.Sum256(text[:end]) != s {
		return h, nil, s, errors.New("its checksum is wrong: it was torn or changed")
	}
	about, body, found := bytes.Cut(text[len(first):end], []byte("\n"))
	if !found {
		return h, nil, s, errors.New("it has no header")
	}
	if err := json.Unmarshal(about, &h); err != nil {
		return h, nil, s, fmt.Errorf("its header: %w", err)
	}
	return h, body, s, nil
}
