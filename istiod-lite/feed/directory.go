package feed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/ambit-mesh/ambit/istiod-lite/objects"
)

// Directory feeds a queue from the *.yaml and *.yml files of a directory, in
// place of a cluster.
type Directory struct {
	path   string
	mesh   objects.MeshConfig
	queue  *Queue
	log    *slog.Logger
	synced chan struct{}

	// Run's goroutine only.
	last Changes
}

// NewDirectory makes a feeder; nothing is read before Run. The mesh settings
// are those before the files' own.
func NewDirectory(path string, mesh objects.MeshConfig, q *Queue, log *slog.Logger) *Directory {
	return &Directory{path: path, mesh: mesh, queue: q, log: log, synced: make(chan struct{}), last: Changes{}}
}

// Synced is closed once the files have been read the first time.
func (d *Directory) Synced() <-chan struct{} { return d.synced }

// settle is how long writers of files are given to finish.
const settle = 50 * time.Millisecond

// Run reads the files and follows their changes until ctx ends. Files that
// cannot be read are an error at the start; later the last good state stays.
func (d *Directory) Run(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %s: %w", d.path, err)
	}
	defer w.Close()
	if err := w.Add(d.path); err != nil {
		return fmt.Errorf("watching %s: %w", d.path, err)
	}
	if err := d.read(); err != nil {
		return err
	}
	close(d.synced)
	var due <-chan time.Time
	for {
		select {
		case <-w.Events:
			due = time.After(settle)
		case err := <-w.Errors:
			d.log.Warn("watching files", "path", d.path, "reason", err)
			due = time.After(settle) // events may be lost: look again
		case <-due:
			due = nil
			if err := d.read(); err != nil {
				d.log.Error("files not taken, the last good state stays", "path", d.path, "reason", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// read queues the differences between the files and what was read before.
func (d *Directory) read() error {
	now, err := d.load()
	if err != nil {
		return err
	}
	for ref, object := range now {
		if old, ok := d.last[ref]; !ok || !reflect.DeepEqual(old, object) {
			d.queue.Put(ref, object)
		}
	}
	for ref := range d.last {
		if _, ok := now[ref]; !ok {
			d.queue.Put(ref, nil)
		}
	}
	d.last = now
	return nil
}

func (d *Directory) load() (Changes, error) {
	var files []string
	for _, pattern := range []string{"*.yaml", "*.yml"} {
		found, err := filepath.Glob(filepath.Join(d.path, pattern))
		if err != nil {
			return nil, err
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	set := objects.Set{Mesh: d.mesh}
	var errs []error
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err == nil {
			err = set.Read(text)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Base(f), err))
		}
	}
	return all(set), errors.Join(errs...)
}

// all is everything in a set.
func all(s objects.Set) Changes {
	c := Changes{{Kind: objects.KindMesh}: s.Mesh}
	s.Each(func(ref objects.Ref, o any) { c[ref] = o })
	return c
}
