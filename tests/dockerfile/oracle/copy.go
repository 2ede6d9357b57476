package main

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	copier "github.com/tonistiigi/fsutil/copy"
)

// put makes files, and folders whose names end with a slash.
func put(root string, paths []string) error {
	for _, path := range paths {
		full := filepath.Join(root, path)
		folder := filepath.Dir(full)
		if strings.HasSuffix(path, "/") {
			folder = full
		}
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return err
		}
		if folder != full {
			if err := os.WriteFile(full, []byte(path), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyFiles copies as a worker of BuildKit does, and lists what is there then: a file with what it was.
func copyFiles(asked question) (any, error) {
	top, err := os.MkdirTemp("", "oracle")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(top)
	from, to := filepath.Join(top, "from"), filepath.Join(top, "to")
	if err := put(from, append([]string{"./"}, asked.Paths...)); err != nil {
		return nil, err
	}
	if err := put(to, append([]string{"./"}, asked.Below...)); err != nil {
		return nil, err
	}
	sources, err := copier.ResolveWildcards(from, asked.Text, true)
	if err != nil {
		return nil, err
	}
	for _, source := range sources {
		err := copier.Copy(context.Background(), from, source, to, asked.Target, func(info *copier.CopyInfo) {
			info.IncludePatterns = asked.Include
			info.ExcludePatterns = asked.Exclude
			info.CopyDirContents = true
			info.FollowLinks = true
		})
		if err != nil {
			return nil, err
		}
	}
	found := map[string]string{}
	err = filepath.WalkDir(to, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, to)
		if entry.IsDir() {
			found[name+"/"] = ""
			return nil
		}
		content, err := os.ReadFile(path)
		found[name] = string(content)
		return err
	})
	return found, err
}
