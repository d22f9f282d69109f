package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// tree is the file system of an image before it is a tar: path (without the
// leading slash) to entry. Writing it is deterministic: sorted, one date, and
// no owner but those the table gives.
type tree struct {
	image   string
	entries map[string]entry
}

type entry struct {
	header tar.Header
	source string // file on disk
	data   []byte // or content
}

// epoch dates every file, so that the same content is the same archive.
var epoch = time.Unix(0, 0).UTC()

func newTree(image string) *tree { return &tree{image: image, entries: map[string]entry{}} }

func clean(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

// put adds an entry and the directories above it.
func (t *tree) put(name string, e entry) {
	name = clean(name)
	if name == "" {
		return
	}
	if dir := path.Dir(name); dir != "." {
		if _, ok := t.entries[dir]; !ok {
			t.put(dir, entry{header: tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}})
		}
	}
	e.header.Name, e.header.ModTime = name, epoch
	if e.header.Typeflag == tar.TypeDir {
		e.header.Name += "/"
	}
	t.entries[name] = e
}

func (t *tree) addFile(name, source string, mode int64) {
	t.put(name, entry{header: tar.Header{Typeflag: tar.TypeReg, Mode: mode}, source: source})
}

func (t *tree) addContent(name, content string) {
	t.put(name, entry{header: tar.Header{Typeflag: tar.TypeReg, Mode: 0o644}, data: []byte(content)})
}

// addEmpty adds a directory, by its real path where the image has links to directories.
func (t *tree) addEmpty(d Dir) {
	if e, ok := t.entries[clean(d.Path)]; ok && e.header.Typeflag == tar.TypeSymlink {
		return
	}
	t.put(d.Path, entry{header: tar.Header{Typeflag: tar.TypeDir, Mode: d.Mode, Uid: d.UID, Gid: d.UID}})
}

// addDir adds a directory of the disk, without what no program reads.
func (t *tree) addDir(root string) error {
	return filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		if unread(rel) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		return t.addNode(rel, file, d)
	})
}

func (t *tree) addNode(rel, file string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	mode := int64(info.Mode().Perm())
	switch {
	case d.IsDir():
		t.put(rel, entry{header: tar.Header{Typeflag: tar.TypeDir, Mode: mode}})
	case d.Type()&fs.ModeSymlink != 0:
		dest, err := os.Readlink(file)
		if err != nil {
			return err
		}
		t.put(rel, entry{header: tar.Header{Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: dest}})
	case d.Type().IsRegular():
		t.addFile(rel, file, mode)
	}
	return nil
}

// unread says what of a Debian package a container has no use for.
func unread(rel string) bool {
	for _, dir := range []string{
		"usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian", "usr/share/bash-completion",
		"usr/share/i18n", "usr/lib/postgresql/15/lib/bitcode", "var/lib/apt", "var/cache",
	} {
		if rel == dir {
			return true
		}
	}
	return false
}

// write writes the tree as a tar.
func (t *tree) write(w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		if err := t.entries[name].write(tw); err != nil {
			return fmt.Errorf("pack /%s: %w", name, err)
		}
	}
	return tw.Close()
}

func (e entry) write(tw *tar.Writer) error {
	h := e.header
	h.Format = tar.FormatPAX
	var content io.Reader = bytes.NewReader(e.data)
	h.Size = int64(len(e.data))
	if e.source != "" {
		f, err := os.Open(e.source)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		content, h.Size = f, info.Size()
	}
	if err := tw.WriteHeader(&h); err != nil {
		return err
	}
	_, err := io.Copy(tw, content)
	return err
}
