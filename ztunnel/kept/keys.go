package kept

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
)

// CertificatesChanged says that there are others to keep than before.
func (k *Keeper) CertificatesChanged() { k.changed(keysFile) }

// keys is the file of certificates.
type keys struct {
	// Trust is nil if nobody tells of roots.
	Trust        *certs.KeptTrust `json:"trust,omitempty"`
	Certificates []certs.Kept     `json:"certificates"`
}

// flushCertificates writes the certificates of now with their keys.
func (k *Keeper) flushCertificates(from Source) {
	if !k.take(keysFile) || !inMemory(k.config.Dir) {
		return
	}
	all := keys{Trust: from.Told()}
	for _, c := range from.Certificates() {
		kept, err := c.Keep()
		if err != nil {
			k.wrote(keysFile, sum{}, 0, err)
			return
		}
		all.Certificates = append(all.Certificates, kept)
	}
	slices.SortFunc(all.Certificates, func(a, b certs.Kept) int { return strings.Compare(a.ID, b.ID) })
	s, size, err := write(k.config.Dir, keysFile, k.header(), func(w io.Writer) error { return json.NewEncoder(w).Encode(all) })
	k.wrote(keysFile, s, size, err)
}

// Certificates reads those that were kept and may still be used, and what had
// been told of roots: who was not trusted before is not trusted now.
func (k *Keeper) Certificates() (out []*certs.Certificate, told *certs.Trust) {
	if k.silent() {
		return nil, nil
	}
	all, err := k.readCertificates()
	if err == nil && all.Trust != nil {
		told, err = all.Trust.Restore()
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			k.refuse(keysFile, err)
		}
		return nil, nil
	}
	for _, one := range all.Certificates {
		c, err := one.Restore(time.Now())
		if err != nil {
			k.log.Info("a kept certificate is not used", "reason", err)
			continue
		}
		out = append(out, c)
	}
	return out, told
}

func (k *Keeper) readCertificates() (all keys, err error) {
	if !inMemory(k.config.Dir) {
		return all, fs.ErrNotExist // no key of ours is there
	}
	h, body, _, err := read(k.config.Dir, keysFile, k.config.MaxBytes)
	if err == nil {
		err = k.ours(h)
	}
	if err != nil {
		return all, err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		return all, fmt.Errorf("its certificates: %w", errors.New("they cannot be read")) // never a word of a key
	}
	return all, nil
}
