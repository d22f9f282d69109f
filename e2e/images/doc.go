// Package images makes container images without a container engine: static Go
// programs on an empty base, and programs of Debian packages unpacked beside
// their libraries. The result is one docker-archive per image, and the same
// inputs give the same bytes.
//
// It owns the table of images (table.go) and the directory of archives. It
// refuses to run anything of what it packs. cmd/images and the demo call it;
// package cluster loads what it makes.
package images
